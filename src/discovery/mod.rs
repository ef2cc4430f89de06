//! Members that are found by a name of the DNS: what is asked, and what an answer comes to. The names of `/etc/hosts` are
//! not looked at: they have neither services nor a time after which they are looked up again.
//!
//! | file | does |
//! |---|---|
//! | `message.rs` | questions to bytes, and bytes to answers |
//! | `resolver.rs` | asks the name servers, one after another |
//! | `found.rs` | which members an answer means, and what that changes |

pub mod found;
pub mod message;
pub mod resolver;
