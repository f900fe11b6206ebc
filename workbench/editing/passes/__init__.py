"""Forward passes that run only the parts of a model that an edit can change."""
