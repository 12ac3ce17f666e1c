//! The main job on an embedded node.
