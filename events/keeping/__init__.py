"""The care of a log: verify, backup and restore, export and import, archive, quarantine."""
