//! Signing in: a link by mail, one press of a button, a session.
//!
//! | Module | What is there |
//! |---|---|
//! | `routes` | `/api/auth/...` |
//! | `page` | `/sign-in`, where a link leads |
//! | `requests` | the work behind asking for a link, apart from the request |
//! | `token` | session tokens: JSON Web Tokens that name a session |
//! | `browser` | the cookie, and which pages may use it |
//!
//! Links and sessions live in storage, which counts, consumes and ends them; mails are sent by others.

mod browser;
pub(crate) mod page;
mod requests;
mod routes;
mod token;

pub(crate) use browser::Site;
pub(crate) use requests::Requests;
pub(crate) use routes::router;
pub use token::SessionKeys;
