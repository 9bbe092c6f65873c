"""Everything that tests share is in harness.plugin, which pytest loads by its entry point."""
