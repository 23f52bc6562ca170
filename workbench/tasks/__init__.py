"""What the workbench does: each task is a Request, a Result and one function between them."""
