"""What a sandbox is given and surrounded with, so that its programs reach the gateway only."""
