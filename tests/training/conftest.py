from trainers import build  # noqa: F401
