"""Forward passes that run only what an edit can change."""
