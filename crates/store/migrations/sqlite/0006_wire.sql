-- Where the time of an attempt went, in microseconds; nothing for a step that was not taken.
ALTER TABLE deliveries ADD COLUMN reused_connection INTEGER;
ALTER TABLE deliveries ADD COLUMN dns_us INTEGER;
ALTER TABLE deliveries ADD COLUMN connect_us INTEGER;
ALTER TABLE deliveries ADD COLUMN tls_us INTEGER;
ALTER TABLE deliveries ADD COLUMN first_byte_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN reused_connection INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN dns_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN connect_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN tls_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN first_byte_us INTEGER;
