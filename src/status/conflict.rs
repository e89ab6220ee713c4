//! One container id with several images: the router treats an id as one service, so a job may reach any of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::numbers::plural;
use crate::registry::Summary;
use crate::util::text::shorten;

/// Maximum length of an image in a line of text.
const MAX_IMAGE_CHARS: usize = 120;

/// A container id that available nodes run with different images.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    pub(crate) id: String,
    /// At most four images.
    images: Vec<ImageCount>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct ImageCount {
    image: String,
    /// Available nodes that run the id with this image.
    nodes: usize,
}

impl From<Summary> for Conflict {
    fn from(container: Summary) -> Self {
        let count = |(image, nodes): (Arc<str>, usize)| ImageCount {
            image: image.to_string(),
            nodes,
        };
        Self {
            id: container.id.as_str().to_owned(),
            images: container.images.into_iter().map(count).collect(),
        }
    }
}

impl Conflict {
    /// Returns the images as escaped text, each with the number of nodes that run it.
    pub(crate) fn images_text(&self) -> String {
        let text = |of: &ImageCount| format!("{} ({})", shorten(&of.image, MAX_IMAGE_CHARS), plural(of.nodes, "node"));
        self.images.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, images) = (&self.id, self.images_text());
        write!(
            f,
            "container {id:?} runs with different images: {images}; a job may reach any of them"
        )
    }
}
