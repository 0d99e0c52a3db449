"""From weather and observations on disk to a stream of windows."""
