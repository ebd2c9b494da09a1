"""What goes in: images and networks."""
