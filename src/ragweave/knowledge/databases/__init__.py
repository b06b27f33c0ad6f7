"""Knowledge bases in databases: what is a folder elsewhere is a URI here."""
