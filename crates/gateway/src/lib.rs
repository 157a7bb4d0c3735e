//! Accept: the HTTP API. Authenticates, validates, enqueues, answers.
