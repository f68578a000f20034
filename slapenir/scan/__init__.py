"""The stream scanner: a secret's forms, the pattern engine, rewriting and content codings."""
