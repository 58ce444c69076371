"""A corpus in shards on disk, built and searched in bounded memory."""
