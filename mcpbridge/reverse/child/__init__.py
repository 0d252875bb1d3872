"""A remote server as a child of a bridge: `remote_channel`, and `remote_child`, its life."""
