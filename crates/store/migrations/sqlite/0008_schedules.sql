-- When deliveries are tried again, in words such as `5s,1m`; NULL for the schedule of the product. That of a
-- run is copied to its deliveries, so that an attempt looks at one row.
ALTER TABLE runs ADD COLUMN webhook_schedule TEXT;
ALTER TABLE deliveries ADD COLUMN schedule TEXT;
