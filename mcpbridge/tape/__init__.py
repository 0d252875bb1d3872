"""What passes between the bridge and its children: kept, recorded, replayed and converted."""
