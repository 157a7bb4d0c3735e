-- How often a run may be executed, NULL without a bound, and how often it may have been so far.
ALTER TABLE runs ADD COLUMN max_attempts INTEGER;
ALTER TABLE runs ADD COLUMN executions INTEGER NOT NULL DEFAULT 0;
