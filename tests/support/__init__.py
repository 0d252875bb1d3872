"""What tests of several folders use: the bridge as a process, its clients and its peers."""
