"""What is distilled: token alignment by transport or greedily, pooled vectors, and scores over a bank."""
