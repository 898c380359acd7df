//! The listener that a question is about.

use thiserror::Error;

use super::{Question, few};
use crate::config::model::{Config, Listener, TOP, Transport};

/// There is no such listener.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NoListener {
    /// None has this name.
    #[error("there is no listener {name}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It has no sockets of this transport.
    #[error("listener {name} does not serve {transport}")]
    NotServed {
        /// The name.
        name: String,
        /// The transport.
        transport: Transport,
        /// Those that do.
        serving: String,
    },
}

impl NoListener {
    /// A way out.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Unknown { known, .. } => format!("the file has {known}"),
            Self::NotServed { transport, serving, .. } if serving.is_empty() => {
                format!("no listener has a rule or default target for {transport}")
            }
            Self::NotServed { transport, serving, .. } => format!("{transport} is served by {serving}"),
        }
    }
}

/// The listener of `config` that `question` is about: the one that it names, or the only one that serves its transport, or
/// else the first.
///
/// # Errors
///
/// There is none, or it serves another transport.
pub(crate) fn listener<'c>(config: &'c Config, question: &Question) -> Result<&'c Listener, NoListener> {
    let transport = question.transport;
    let serving = || config.listeners().filter(|listener| listener.serves(transport));
    let not_served = |name: &str| NoListener::NotServed {
        name: name.to_owned(),
        transport,
        serving: few(serving().map(|listener| &listener.name)),
    };
    let Some(name) = &question.listener else {
        return serving().next().ok_or_else(|| not_served(TOP));
    };
    let named = config.listeners().find(|listener| *listener.name == **name).ok_or_else(|| NoListener::Unknown {
        name: name.clone(),
        known: few(config.listeners().map(|listener| &listener.name)),
    })?;
    if named.serves(transport) { Ok(named) } else { Err(not_served(name)) }
}
