//! One container id with several images: the router treats an id as one service, so a job may reach any of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::registry::Summary;
use crate::util::text::shorten;

/// Maximum length of an image in a line of text.
const MAX_IMAGE_CHARS: usize = 120;

/// A container id that available nodes run with different images.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    pub(crate) id: String,
    /// At most four images.
    pub(crate) images: Vec<ImageCount>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ImageCount {
    pub(crate) image: String,
    /// Available nodes that run the id with this image.
    pub(crate) nodes: usize,
}

impl From<Summary> for Conflict {
    fn from(container: Summary) -> Self {
        let images = container.images.iter().map(|(image, nodes)| ImageCount {
            image: image.to_string(),
            nodes: *nodes,
        });
        Self {
            id: container.id.as_str().to_owned(),
            images: images.collect(),
        }
    }
}

impl Conflict {
    /// Returns the images as escaped text, each with the number of nodes that run it.
    pub(crate) fn images_text(&self) -> String {
        let images = self.images.iter();
        let images = images.map(|image| format!("{} ({})", shorten(&image.image, MAX_IMAGE_CHARS), nodes(image.nodes)));
        images.collect::<Vec<_>>().join(", ")
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

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        more => format!("{more} nodes"),
    }
}
