"""Version 1 of the messages and services. Generated from proto/ by proto/generate.py."""
