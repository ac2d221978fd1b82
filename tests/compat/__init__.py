"""What versions of before have written, which every later one reads."""
