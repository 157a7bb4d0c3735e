-- What people set of an inbox: its name, when it ends, and how it answers.
ALTER TABLE inboxes ADD COLUMN name TEXT;
ALTER TABLE inboxes ADD COLUMN expires_at INTEGER;
-- JSON; without one an inbox answers 200.
ALTER TABLE inboxes ADD COLUMN reply TEXT;
-- Requests recorded since the reply was set: which step of its script comes next.
ALTER TABLE inboxes ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;
