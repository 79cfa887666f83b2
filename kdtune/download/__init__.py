"""Download UCF101 and HMDB51 from their official places."""
