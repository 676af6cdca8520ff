"""What is seen of the gateway: metrics and logs. Bodies and keys never reach them."""
