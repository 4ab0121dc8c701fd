"""Pictures of skeletons: still, moving, and to be turned by hand."""
