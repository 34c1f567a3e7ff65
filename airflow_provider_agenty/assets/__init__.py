"""Assets of Agenty."""
