"""What knows the world and changes it: probes, discovery, launched processes."""
