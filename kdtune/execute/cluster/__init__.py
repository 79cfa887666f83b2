"""Ray itself: started on this machine, reached elsewhere, its machines asked, its jobs submitted."""
