//! What a machine says of a constellation that it is none of, or no more.

use std::sync::PoisonError;

use api::Former;
use model::Problem;

use crate::beside::beside;
use crate::constellation::{Standpoint, let_go};
use crate::control::Remote;

impl Remote {
    /// The constellation that let go of this machine, unless somebody here has taken note.
    pub(crate) fn former(&self) -> Option<Former> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its part in a constellation.
    ///
    /// # Errors
    /// Says that it has none.
    pub(crate) fn standpoint(&self) -> Result<&Standpoint, Problem> {
        let alone = || self.former().map_or_else(node::roster::alone, |former| former.alone());
        self.standpoint.as_ref().ok_or_else(alone)
    }

    /// Whoever asks to leave has been told that it was removed, and wants it to be alone.
    ///
    /// # Errors
    /// `Conflict` when it was nothing before.
    pub(crate) async fn forget_former(&self) -> Result<(), Problem> {
        if self.former().is_none() {
            return Err(node::roster::alone());
        }
        let data_dir = self.data_dir.clone();
        beside(move || let_go::clear(&data_dir)).await?;
        *self.former.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
