"""What does a kilowatt-hour emit, or cost, from when to when?"""
