//! The pages as people meet them: in a browser.
//!
//! - [`journey`]: from signing in to a webhook that arrives, a receiver that fails, and a key that is replaced;
//! - [`hostile`]: what strangers write is shown and never obeyed;
//! - [`hostile_forms`]: so is what is typed into a form, what a form brings back, and what a link shows;
//! - [`reference`]: the API is asked from its own page;
//! - [`doors`]: other sites change nothing and read nothing;
//! - [`tour`]: every page, by day, by night and on a phone: can everybody use it, and does it load at once.
//!
//! A new page is found by itself: [`routes`] reads the rooms' routers. What its path needs stands in [`sample`].

mod doors;
mod driver;
mod hostile;
mod hostile_forms;
mod journey;
mod reference;
mod routes;
mod sample;
mod tour;
