"""The program as a whole: real servers, real kills, and what the log says afterwards."""
