"""The heart and the chest around it, and which artery a place belongs to."""
