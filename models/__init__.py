"""What Gatehouse keeps, and every rule about it; knows nothing of HTTP or of the queue."""
