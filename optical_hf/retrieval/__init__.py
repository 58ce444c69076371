"""MaxSim, search of passages in memory, and the first stages that find candidates."""
