"""What tests/chaos.py is made of: clients that write down everything, and who checks it."""
