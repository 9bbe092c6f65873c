"""What config space says: addresses, registers as tables, capabilities. Pure, standard library only."""
