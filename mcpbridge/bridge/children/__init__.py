"""Children and who may use them: connections, pools, limits, supervision and health."""
