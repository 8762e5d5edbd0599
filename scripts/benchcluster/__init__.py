"""The cluster's figures: bricks in network namespaces of their own, on one machine."""
