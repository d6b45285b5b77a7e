"""What a conversion did, as one HTML page: the verdict, the network as a picture, each tensor's way, its numbers."""
