"""What may go where: pure and total, no I/O, no clock, no secrets."""
