"""What the tests share: the kinds of user, an installed copy for them, leak checks, snapshots of trees."""
