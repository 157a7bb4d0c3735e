-- Up to which last attempt people were warned of results that go undelivered; NULL for nobody yet.
ALTER TABLE node ADD COLUMN warned_until INTEGER;
