"""Teacher and student; the files ending in `_optical` travel with every saved model."""
