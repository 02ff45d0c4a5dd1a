"""Both tables read and compared, what differs read again and repaired."""
