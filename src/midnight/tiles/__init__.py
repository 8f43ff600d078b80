"""Online patching: where tiles lie, how they are read at their exact resolution, filtered, stained and cropped."""
