//! One container id with several images: the router treats an id as one service, so jobs for it reach any of them.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::node::ContainerId;
use crate::registry::Summary;

/// A container id that available nodes run with different images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    #[serde(serialize_with = "id")]
    pub(crate) id: ContainerId,
    /// At most four images.
    pub(crate) images: Vec<Image>,
}

/// One of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    #[serde(serialize_with = "text")]
    pub(crate) image: Arc<str>,
    /// Available nodes that run the id with this image.
    pub(crate) nodes: usize,
}

impl Conflict {
    /// The images as text, each with the number of nodes that run it.
    pub(crate) fn images_text(&self) -> String {
        let images = self.images.iter();
        let images: Vec<String> = images
            .map(|image| format!("{} ({})", image.image, nodes(image.nodes)))
            .collect();
        images.join(", ")
    }
}

impl From<Summary> for Conflict {
    fn from(container: Summary) -> Self {
        let images = container
            .images
            .into_iter()
            .map(|(image, nodes)| Image { image, nodes });
        Self {
            id: container.id,
            images: images.collect(),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = self.images.iter().map(|image| (&*image.image, image.nodes));
        f.write_str(&conflict_line(self.id.as_str(), images))
    }
}

/// Describes a conflict as text, each image with the number of nodes that run it.
pub(crate) fn conflict_line<'a>(id: &str, images: impl Iterator<Item = (&'a str, usize)>) -> String {
    let images: Vec<String> = images
        .map(|(image, count)| format!("{image:?} ({})", nodes(count)))
        .collect();
    let images = images.join(", ");
    format!("container {id:?} runs with different images: {images}; jobs for it go to any of them")
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        more => format!("{more} nodes"),
    }
}

fn id<S: serde::Serializer>(id: &ContainerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
